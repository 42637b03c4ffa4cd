"""Raw video to clips, clips to WebDataset shards, shards to batches in an order that is a formula.

The story, in the order the data takes: `ingest` (the command) asks `sources` for videos, `video`
decodes one at 25 fps, `stabilize` holds the camera still, `cut` makes 64x64 clips of it, `tarfmt`
writes them into tars with an index, `manifest` seals the dataset; then `order` says which sample
stands at position p, and `read` fetches, decodes and batches it. Everything that touches a path
goes through `storage`, so `s3://` works wherever a folder does.
"""
