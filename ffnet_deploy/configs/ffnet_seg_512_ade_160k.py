_base_ = [
    "_base_/models/ffnet_seg.py",
    "_base_/datasets/ade20k.py",
    "_base_/schedules/head_times_ten.py",
    "_base_/runtime.py",
]
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(drop_path_rate=0.3),
    decode_head=dict(num_classes=150, head_depth=3, expansion_ratio=4, drop_path=0.1),
)
