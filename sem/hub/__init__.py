"""The Hugging Face Hub: training on its rented hardware (:mod:`sem.hub.job`, :mod:`sem.hub.launch`) and the copy of a
run's folder that is kept in a repository there (:mod:`sem.hub.mirror`, ``python -m sem.hub``)."""
