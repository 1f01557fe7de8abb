"""Pictures of images with boxes; works on any ``Detections`` and knows nothing of networks."""
