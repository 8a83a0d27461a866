"""Specs by chance, made from the CRD's schema, and what must be true of whatever they are edited into."""
