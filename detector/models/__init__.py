"""The network: ResNet, region proposal network and C4 head, put together as Faster R-CNN."""
