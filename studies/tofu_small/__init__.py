"""TOFU's small splits on a pretrained story model: are two, ten or twenty authors enough for an audit?"""
