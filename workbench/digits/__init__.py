"""The embedded default model and its data.

A MobileNetV2-style classifier of scikit-learn's handwritten digits, enlarged to 96x96, with its
trained weights, its calibration and evaluation images, and the script that trained it.
"""
