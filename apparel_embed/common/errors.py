"""The error a user can mend: wrong input, flag or file."""


class UserError(ValueError):
    """Something the user gave is wrong; the message says what, where and what is allowed.

    Binaries print the message as one line and end with status 1, without a traceback.

    Example:
      >>> from apparel_embed import load_prepared
      >>> try:
      ...     load_prepared("nothing/here")
      ... except UserError as error:
      ...     print(error)
      nothing/here: directory does not exist; ...
    """
