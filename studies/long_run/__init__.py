"""Hundreds of audits in a row over one store, with kills, prunes, two at a time and a disk that is nearly full."""
