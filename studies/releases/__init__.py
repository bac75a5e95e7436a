"""Is a release audited without an edit of its case? Five pools' layouts, rebuilt tiny."""
