"""How often does the reading of weights take training for a rank-one redirect?"""
