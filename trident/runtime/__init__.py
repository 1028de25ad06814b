"""The host side: how an operator is registered, tuned, routed and launched."""
