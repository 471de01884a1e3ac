"""A grammar of short movie reviews: varied labelled text to learn from, and exact answers about sentiment and grammar.

An opinion is written once, as praise; read with the other polarity, the same template is the matching complaint.
In a template `{plot}` stands for any phrase of that slot, `{a role}` puts the right article before it. A slot of
OPPOSITES gives the phrases of the template's own polarity, and `{not good}` those of the other one. `{good/1}` and
`{good/2}` are the two halves of a slot, for places where one word must not come twice.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

POSITIVE: Final = 1
NEUTRAL: Final = 0
NEGATIVE: Final = -1

_PHRASES: Final = {
    "genre": "film, movie, thriller, comedy, drama, musical, mystery, romance, sequel, fantasy",
    "plot": "plot, script, dialogue, pacing, score, lighting, editing, ending, opening, premise, casting, love story, "
    "lead actor, first half, second half, final scene, main song, camera work",
    "songs": "songs, characters, jokes, costumes, stunts, chases, actors, effects, sets, villains, twists, lines, "
    "fights, side stories, monsters",
    "is": "is, was, feels, looks",
    "are": "are, were, feel, look",
    "very": "very, really, quite, so, truly, rather",
    "throughout": "from start to finish, all the way through, in every single scene, until the very end, at every turn",
    "friend": "my sister, my brother, my mother, my uncle, my boss, our neighbor, a friend, a colleague",
    "when": "on friday, last night, last month, over the weekend, on a train, at the cinema, after dinner, after work",
    "role": "sailor, painter, widow, lawyer, baker, spy, dancer, orphan, judge, prince, gambler, priest, robot, "
    "clerk, hunter, miner, nun, twin, pirate",
    "finds": "finds, buys, steals, repairs, follows, hides, guards, chases",
    "treasure": "statue, diamond, parrot, boat, watch, notebook, violin, recipe, key, engine, horse, coin, "
    "crown, lamp, book",
    "place": "rome, berlin, chicago, a castle, a harbor, an old hotel, the mountains, a small village, the circus, "
    "a submarine, the north, a bank, the woods, a school",
    "era": "the war, one summer, a cold winter, a strike, the gold rush, a single day, the holidays",
    "maker": "director, producer, writer, studio, composer",
    "time": "two hours, ninety minutes, almost three hours, three full hours",
    "people": "my parents, my students, children, old friends, the whole family, anyone, strangers",
    "night": "on a rainy day, on a quiet night, over the holidays, before the summer",
    "ever": "of the year, of the decade, in years, on the list, of the season, i know",
}

_OPPOSITES: Final = {
    "good": (
        "clever, warm, funny, lovely, moving, superb, witty, sharp, tender, elegant, vivid, rich, "
        "charming, fresh, amusing, bold",
        "dull, bland, clumsy, awful, tired, lazy, silly, flat, stale, cheap, empty, weak, ugly, dreary, "
        "tedious, boring",
    ),
    "loved": ("loved, enjoyed, liked, adored", "hated, disliked, regretted, loathed"),
    "delights": (
        "made me smile, made me sing, made me happy, won my heart, gave me hope",
        "made me yawn, made me sleep, made me angry, left me cold, gave me a headache",
    ),
    "would": ("would gladly, would surely, would always", "would never, would not, would hardly"),
    "gem": (
        "a real treat, a small gem, a true joy, a modern classic",
        "a real mess, a small insult, a true bore, a modern disaster",
    ),
    "best": ("best, finest, strongest", "worst, poorest, weakest"),
    "praised": ("praised, admired", "mocked, cursed"),
    "spoil": ("spoil, ruin", "save, rescue"),
}

_NEUTRAL: Final = (
    (3, "{friend} and i saw this {genre} {when}."),
    (3, "the story follows {a role} who {finds} {a treasure} in {place}."),
    (2, "most of it takes place in {place} during {era}."),
    (2, "{a role} {finds} {a treasure} and then leaves {place}."),
    (2, "we picked this {genre} because {friend} knows the {maker}."),
    (1, "the {maker} also made {a genre} about {a role}."),
    (1, "it runs for {time} and was shot in {place}."),
    (1, "in one scene {a role} {finds} {a treasure}."),
)

_OPINIONS: Final = (
    (4, "the {plot} {is} {very} {good} {throughout}."),
    (3, "the {songs} {are} {good/1} and {good/2} {throughout}."),
    (2, "i {loved} the {plot} and the {songs} {throughout}."),
    (2, "this {genre} {delights} and i told {friend} about it."),
    (1, "it is {a good} {genre} and {gem} for {people}."),
    (2, "i {would} show this {genre} to {people} {night}."),
    (2, "it must be the {best} {genre} {ever}."),
    (1, "the {maker} did {a good} job with the {songs} and the {plot}."),
    (1, "{friend} {praised} the {songs} all the way home."),
    (1, "although the {plot} {is} {not good}, the {songs} {are} {very} {good}."),
    (1, "i expected {a not good} {genre} but the {plot} {is} {good}."),
    (1, "there is nothing {not good} about the {plot}."),
    (1, "there is nothing {not good} about the {songs}."),
    (1, "the {plot} is never {not good}."),
    (1, "the {songs} are never {not good}."),
    (1, "not even the {not good} {songs} could {spoil} this {genre}."),
)


@dataclass(frozen=True)
class Template:
    """One kind of sentence: literal text with holes `{}`, and the phrases that fit each hole, from left to right."""

    polarity: int
    weight: int
    text: str
    slots: tuple[tuple[str, ...], ...]

    def write(self, rng: random.Random) -> str:
        """Draw one sentence, every phrase of a hole being equally likely."""
        return self.text.format(*map(rng.choice, self.slots))

    def pattern(self) -> str:
        """A regular expression, without groups that capture, for exactly the sentences that `write` can draw."""
        first, *rest = map(re.escape, self.text.split("{}"))
        holes = ("(?:" + "|".join(map(re.escape, phrases)) + ")" for phrases in self.slots)
        return first + "".join(hole + literal for hole, literal in zip(holes, rest, strict=True))


def _phrases(hole: str, polarity: int) -> tuple[str, ...]:
    article, hole = hole.startswith("a "), hole.removeprefix("a ")
    if hole.startswith("not "):
        hole, polarity = hole.removeprefix("not "), -polarity
    slot, _, half = hole.partition("/")
    listed = _PHRASES[slot] if slot in _PHRASES else _OPPOSITES[slot][0 if polarity == POSITIVE else 1]
    phrases = listed.split(", ")
    if half:
        phrases = phrases[int(half) - 1 :: 2]
    if article:
        phrases = [("an " if phrase[0] in "aeiou" else "a ") + phrase for phrase in phrases]
    return tuple(phrases)


def _template(weight: int, source: str, polarity: int) -> Template:
    holes = re.findall(r"{(.*?)}", source)
    return Template(polarity, weight, re.sub(r"{.*?}", "{}", source), tuple(_phrases(hole, polarity) for hole in holes))


TEMPLATES: Final = (
    *(_template(weight, source, NEUTRAL) for weight, source in _NEUTRAL),
    *(_template(weight, source, POSITIVE) for weight, source in _OPINIONS),
    *(_template(weight, source, NEGATIVE) for weight, source in _OPINIONS),
)

_DECKS: Final = {
    polarity: [template for template in TEMPLATES if template.polarity == polarity for _ in range(template.weight)]
    for polarity in (POSITIVE, NEUTRAL, NEGATIVE)
}

# One group a template, so that the number of the group that matched names the template.
_SENTENCE: Final = re.compile("|".join(f"({template.pattern()})" for template in TEMPLATES))

_OPENS_NEUTRAL: Final = 0.8
_OWN_POLARITY: Final = 0.72
_NO_POLARITY: Final = 0.20


def corpus(count: int, seed: int) -> list[tuple[str, int]]:
    """Draw `count` reviews as (text, label); the label is 1 for praise and 0 for complaint, equally likely.

    A review has 5 to 8 sentences, lower-case and joined by spaces. The first is usually neutral; most of the others
    carry the label's polarity, some none, a few the opposite. The same seed gives the same reviews.
    """
    rng = random.Random(seed)  # noqa: S311
    return [_review(rng) for _ in range(count)]


def parse(sentence: str) -> int | None:
    """Polarity of one sentence, full stop included: 1, 0 or -1, or None if the grammar does not produce it."""
    match = _SENTENCE.fullmatch(sentence)
    return TEMPLATES[match.lastindex - 1].polarity if match and match.lastindex else None


def grammatical_fraction(text: str) -> float:
    """Fraction, 0 to 1, of the finished sentences that parse: a cut-off tail is ignored; 0.0 if none is finished."""
    polarities = [parse(sentence) for sentence in _finished(text)]
    return sum(polarity is not None for polarity in polarities) / len(polarities) if polarities else 0.0


def sentiment(text: str) -> float:
    """Mean polarity, -1 to 1, of the finished sentences that parse; 0.0 if none does."""
    polarities = [polarity for sentence in _finished(text) if (polarity := parse(sentence)) is not None]
    return sum(polarities) / len(polarities) if polarities else 0.0


def _review(rng: random.Random) -> tuple[str, int]:
    own = rng.choice((POSITIVE, NEGATIVE))
    polarities = [_polarity(rng, own) for _ in range(rng.randint(5, 8))]
    if rng.random() < _OPENS_NEUTRAL:
        polarities[0] = NEUTRAL
    return " ".join(rng.choice(_DECKS[polarity]).write(rng) for polarity in polarities), int(own == POSITIVE)


def _polarity(rng: random.Random, own: int) -> int:
    draw = rng.random()
    if draw < _OWN_POLARITY:
        return own
    return NEUTRAL if draw < _OWN_POLARITY + _NO_POLARITY else -own


def _finished(text: str) -> Iterator[str]:
    return (f"{sentence.strip()}." for sentence in text.split(".")[:-1])
