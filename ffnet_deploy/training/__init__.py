"""Fine-tuning and training of FFNet segmentors, on mmengine's Runner."""
