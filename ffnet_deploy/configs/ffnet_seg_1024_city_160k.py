_base_ = [
    "_base_/models/ffnet_seg.py",
    "_base_/datasets/cityscapes.py",
    "_base_/schedules/head_times_ten.py",
    "_base_/runtime.py",
]
model = dict(
    data_preprocessor=dict(size=(1024, 1024)),
    backbone=dict(drop_path_rate=0.35),
    decode_head=dict(num_classes=19, head_depth=5, expansion_ratio=1, drop_path=0.0),
    test_cfg=dict(mode="slide", crop_size=(1024, 1024), stride=(768, 768)),
)
optim_wrapper = dict(optimizer=dict(weight_decay=0.02))
