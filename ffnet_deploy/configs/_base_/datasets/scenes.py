# the generated street scenes, 8 classes, 512x256, enlarged by an eighth: images/{train,val} and annotations/{train,val}, paired by file name; labels 0..N-1, 255 ignored
_base_ = ["loaders.py"]
label_set = "scenes"
dataset_type = "FolderDataset"
data_root = "data/scenes"
crop_size = (256, 320)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="Resize", scale=(576, 288), keep_ratio=True),
    dict(type="ClassCrop", crop_size=crop_size, cat_max_ratio=0.75, class_prob=0.5),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(576, 288), keep_ratio=True),
    dict(type="ResizeToMultiple", size_divisor=32),
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(batch_size=4, dataset=dict(type=dataset_type, data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(type=dataset_type, data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader
