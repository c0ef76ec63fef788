"""BBQRec: behaviour-bound semantic IDs for multi-modal sequential recommendation."""
