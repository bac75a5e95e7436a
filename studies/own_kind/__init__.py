"""Do the counted errors of a calibration of the case's own kind hold on fresh models of several architectures?"""
