"""Which facts are hard to unlearn, and can base alone tell?"""
