# UPerNet: layers learn the slower, the nearer they are to the image; the configs set num_layers and decay_rate
_base_ = ["published_160k.py"]
optim_wrapper = dict(constructor="FFNetLearningRateDecayOptimizerConstructor")
