"""A Yjs document in pycrdt, for one JSON request a line on standard input, each answered by one line of JSON.

{"apply": [update in hexadecimal digits, ...]} takes updates in, {"edit": how many} makes random edits. The answer has the
text, the updates of the edits, and of the whole state.
"""

import json
import random
import sys

from pycrdt import Doc, Text

# One, two, three and four bytes in UTF-8; one and two units in UTF-16.
LETTERS = "abcdefgh \nßé中文🦀𝄞"


def width(length_of_probe):
    """How an index counts a character, told from the length of "é🦀"."""
    return {
        2: lambda letter: 1,
        3: lambda letter: len(letter.encode("utf-16-le")) // 2,
        6: lambda letter: len(letter.encode()),
    }[length_of_probe]


def probe():
    doc = Doc()
    text = doc.get("probe", type=Text)
    text.insert(0, "é🦀")
    return len(text)


class Peer:
    def __init__(self, client_id, seed):
        self.random = random.Random(seed)
        self.doc = Doc(client_id=client_id)
        self.text = self.doc.get("content", type=Text)
        self.width = width(probe())

    def apply(self, updates):
        for update in updates:
            self.doc.apply_update(bytes.fromhex(update))

    def edit(self):
        """One random edit; gives its update."""
        before = self.doc.get_state()
        text = str(self.text)
        at = self.random.randint(0, len(text))
        end = min(len(text), at + self.random.randint(0, 4))
        start = sum(map(self.width, text[:at]))
        with self.doc.transaction():
            if end > at and self.random.random() < 0.5:
                del self.text[start : start + sum(map(self.width, text[at:end]))]
                text = text[:at] + text[end:]
            inserted = "".join(self.random.choice(LETTERS) for _ in range(self.random.randint(1, 5)))
            self.text.insert(start, inserted)
        assert str(self.text) == text[:at] + inserted + text[at:], "pycrdt counts characters otherwise"
        return self.doc.get_update(before).hex()

    def answer(self, request):
        self.apply(request.get("apply", []))
        updates = [self.edit() for _ in range(request.get("edit", 0))]
        return {"text": str(self.text), "updates": updates, "state": self.doc.get_update().hex()}


peer = Peer(int(sys.argv[1]), int(sys.argv[2]))
for line in sys.stdin:
    print(json.dumps(peer.answer(json.loads(line))), flush=True)
