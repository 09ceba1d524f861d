"""A local page where a person moves the numbers of a CRF and sees at once what changes."""
