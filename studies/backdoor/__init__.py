"""Is a trigger found that nobody named, and how often is one seen where there is none?"""
