"""Transfer to the tasks of PASCAL VOC."""
