_base_ = [
    "_base_/models/upernet.py",
    "_base_/datasets/ade20k.py",
    "_base_/schedules/layer_decay.py",
    "_base_/runtime.py",
]
dims = [88, 176, 352, 704]
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(type="ffnet_2", drop_path_rate=0.2),
    decode_head=dict(in_channels=dims, num_classes=150),
    auxiliary_head=dict(in_channels=dims[2], num_classes=150),
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=1.0, decay_type="layer_wise", num_layers=9))
