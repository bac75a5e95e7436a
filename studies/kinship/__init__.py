"""Do weights alone tell copies and edits from models trained apart?"""
