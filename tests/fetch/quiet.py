"""A watch that says nothing, and keeps the rows it was told of."""


class Quiet:
    def __init__(self):
        self.total = self.known = 0
        self.rows = []

    def start(self, total, known):
        self.total, self.known = total, known

    def step(self, row):
        self.rows.append(row)
