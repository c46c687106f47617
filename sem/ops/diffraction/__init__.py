"""The diffraction operator: its inputs, what they resolve to, the kernel and its plain-torch twin."""
