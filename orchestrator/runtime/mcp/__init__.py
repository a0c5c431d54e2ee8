"""The Model Context Protocol, client side: sessions, messages and transports (decision 104).

Servers are untrusted: whatever they send ends in a result, an error with a sentence, or a line in the skill's log.
"""
