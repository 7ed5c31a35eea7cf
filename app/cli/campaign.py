"""placeholder until the next commit"""


def register(app):
    pass
