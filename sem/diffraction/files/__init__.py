"""Files of the field: reflections, images and experiments as other programs write them, one module per format.

Nothing of a file is believed: sizes that it declares are held against its bytes before memory is asked for, and what is
wrong is one sentence that names the file. gemmi, fabio and h5py, which the extra ``crystallography`` brings, are
imported where a file needs them.
"""
