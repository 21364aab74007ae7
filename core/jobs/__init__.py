"""The contracts of the jobs that Penstock brings along; nothing heavy is imported here.

`email` (send a mail), `image` (resize, thumbnails, convert, crop, watermark), `ai` (language, text in
pictures, chat). A producer or the API imports these to validate; `penstock.consumers.email`, `.image`
and `.ai` hold the handlers. Results are declared here too, for those who read them.
"""
