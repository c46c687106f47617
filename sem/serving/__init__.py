"""A trained model behind HTTP, as OpenAI's completions endpoint, and a page to type into: ``sem serve``.

:mod:`~sem.serving.protocol` reads requests and writes answers, :mod:`~sem.serving.scheduler` draws the texts of several
at once, :mod:`~sem.serving.app` has the routes and :mod:`~sem.serving.server` the socket.
"""
