# FFNet_seg: the head learns ten times faster than the pretrained backbone
_base_ = ["published_160k.py"]
optim_wrapper = dict(
    optimizer=dict(lr=6e-5),
    paramwise_cfg=dict(
        custom_keys=dict(head=dict(lr_mult=10.0), norm=dict(decay_mult=0.0), pos_block=dict(decay_mult=0.0))
    ),
)
