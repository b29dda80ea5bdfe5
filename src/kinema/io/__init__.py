"""Images and videos in and out of files, with the record that they carry."""
