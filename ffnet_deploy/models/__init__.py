"""The FFNet networks as plain PyTorch modules, registered with MMSegmentation under their published names."""

from ffnet_deploy.core.quiet import quiet

with quiet():
    from ffnet_deploy.models.ffnet import FFNet, ffnet_1, ffnet_2, ffnet_3, ffnet_4
    from ffnet_deploy.models.ffnet_head import FFNetHead
    from ffnet_deploy.models.ffnet_seg import FFNetSeg, ffnet_seg

__all__ = ["FFNet", "FFNetHead", "FFNetSeg", "ffnet_1", "ffnet_2", "ffnet_3", "ffnet_4", "ffnet_seg"]
