_base_ = [
    "_base_/models/ffnet_seg_nano.py",
    "_base_/datasets/scenes.py",
    "_base_/schedules/nano_scenes.py",
    "_base_/runtime.py",
]
model = dict(
    data_preprocessor=dict(size=(256, 320)),
    backbone=dict(dims=(16, 32, 64, 128)),
    decode_head=dict(num_classes=8, in_channels=[32, 64, 128], head_width=64, channels=128),
)
