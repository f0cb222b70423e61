"""The authors' sample files, read and written."""
