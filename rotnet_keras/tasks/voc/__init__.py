"""Transfer of a backbone to the three tasks of PASCAL VOC: classification, detection and segmentation."""
