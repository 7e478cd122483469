"""The patch store: how patches stand on disk (`codes`, `layout`), who writes and reads them.

`writer` writes a group (one cell in one survey), `publish` checks all groups and makes the store
whole, `reader` opens it; `dataset` and `batches` give it to torch.
"""
