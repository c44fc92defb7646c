"""The published feature detectors, as published: the baselines that a probe has to beat.

Wang et al. 2019 (Eur Radiol 29:3348, doi 10.1007/s00330-019-06214-8) take one Gaussian for the
activations of lesions with a feature and one for those of all lesions; Wang et al. 2019 (Proc.
SPIE 10950, doi 10.1117/12.2512473) take "sparse" kernel densities with bandwidths of their own for
each unit. What the papers leave open is taken from the authors' public code
(github.com/clintonjwang/voi-classifier: `predict_features_gaussian`, `predict_test_features`,
`kde_rodeo_local`, `get_overall_activations`, and the notebook `identify_features`); nothing of it
is copied. Each file says what is assumed. Fits take arrays of the last hidden layer, one row a
stochastic pass, and know nothing of files or networks.
"""
