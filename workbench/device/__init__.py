"""The device layer: profiles, probes and the runtimes that artifacts run in.

Only the local machine so far. Other transports and runners go beside `runner`, behind the same
`open_session`.
"""
