"""A recipe's steps run in worker processes: cached, resumed, branches side by side."""
