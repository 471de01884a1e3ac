"""The grammar writes balanced, varied, labelled reviews, and judges text exactly."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment.data.grammar import TEMPLATES, Template, corpus, grammatical_fraction, parse, sentiment

REVIEWS = corpus(3_000, seed=7)
PRAISE = "the plot is very funny from start to finish."
COMPLAINT = "the plot is very dull from start to finish."
NO_OPINION = "my sister and i saw this film on friday."
WORDS = sorted({word for text, _ in REVIEWS for word in re.findall(r"\w+|\W", text)})


def sentences(text: str) -> list[str]:
    return re.findall(r"[^ .][^.]*\.", text)


def share_a_sentence(one: Template, other: Template) -> bool:
    """Whether some sentence comes from both: walk the two side by side, holding what one has written ahead."""

    def parts(template: Template) -> list[tuple[str, ...]]:
        first, *rest = template.text.split("{}")
        steps: list[tuple[str, ...]] = [(first,)]
        for phrases, literal in zip(template.slots, rest, strict=True):
            steps += [phrases, (literal,)]
        return steps

    left, right = parts(one), parts(other)
    seen, todo = set(), [(0, 0, "", "")]
    while todo:
        state = i, j, ahead_left, ahead_right = todo.pop()
        if state in seen:
            continue
        seen.add(state)
        if ahead_left or i == len(left):
            if j == len(right):
                if (i, ahead_left, ahead_right) == (len(left), "", ""):
                    return True
                continue
            options, i_next, j_next = [(ahead_left, ahead_right + phrase) for phrase in right[j]], i, j + 1
        else:
            options, i_next, j_next = [(phrase, ahead_right) for phrase in left[i]], i + 1, j
        for a, b in options:
            if a.startswith(b) or b.startswith(a):
                todo.append((i_next, j_next, a[len(b) :], b[len(a) :]))
    return False


class TestCorpus:
    def test_the_same_seed_gives_the_same_reviews(self) -> None:
        assert corpus(50, seed=3) == corpus(50, seed=3)

    def test_another_seed_gives_other_reviews(self) -> None:
        assert not set(corpus(50, seed=3)) & set(corpus(50, seed=4))

    def test_a_smaller_corpus_is_the_beginning_of_a_larger_one(self) -> None:
        assert corpus(5, seed=3) == corpus(50, seed=3)[:5]

    def test_it_has_as_many_reviews_as_asked_for(self) -> None:
        assert [len(corpus(count, seed=0)) for count in (0, 1, 17)] == [0, 1, 17]

    def test_the_labels_are_balanced(self) -> None:
        assert sum(label for _, label in REVIEWS) / len(REVIEWS) == pytest.approx(0.5, abs=0.03)

    def test_a_review_is_five_to_eight_lower_case_sentences(self) -> None:
        assert {len(sentences(text)) for text, _ in REVIEWS} == {5, 6, 7, 8}
        assert all(" ".join(sentences(text)) == text == text.lower() for text, _ in REVIEWS)

    def test_most_reviews_open_without_an_opinion(self) -> None:
        openings = [parse(sentences(text)[0]) for text, _ in REVIEWS]
        assert 0.75 < openings.count(0) / len(openings) < 0.95

    def test_reviews_mix_polarities_yet_their_sentiment_agrees_with_the_label(self) -> None:
        polarities = [parse(sentence) for text, label in REVIEWS for sentence in sentences(text) if label == 1]
        assert polarities.count(-1) > 0.03 * len(polarities)
        agreeing = sum(sentiment(text) * (2 * label - 1) > 0 for text, label in REVIEWS)
        assert agreeing / len(REVIEWS) > 0.95

    def test_it_has_thousands_of_sentences_made_of_few_words(self) -> None:
        written = [sentence for text, _ in REVIEWS for sentence in sentences(text)]
        assert len(set(written)) > 10_000
        assert len({word for sentence in written for word in re.findall(r"\w+", sentence)}) < 450

    def test_articles_fit_the_word_that_follows(self) -> None:
        assert not re.findall(r"\ba [aeiou]\w*|\ban [^aeiou]\w*", " ".join(text for text, _ in REVIEWS))


class TestParse:
    @pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.text)
    def test_every_sentence_of_a_template_parses_to_its_polarity(self, template: Template) -> None:
        rng = random.Random(0)
        assert {parse(template.write(rng)) for _ in range(200)} == {template.polarity}
        for hole, phrases in enumerate(template.slots):
            for phrase in phrases:
                chosen = [phrase if hole == other else slot[0] for other, slot in enumerate(template.slots)]
                assert parse(template.text.format(*chosen)) == template.polarity

    def test_no_sentence_comes_from_two_templates(self) -> None:
        pairs = ((one, other) for index, one in enumerate(TEMPLATES) for other in TEMPLATES[:index])
        assert not [(one.text, other.text) for one, other in pairs if share_a_sentence(one, other)]

    def test_the_search_for_shared_sentences_finds_one(self) -> None:
        one = Template(1, 1, "a {} c.", (("b", "b b"),))
        assert share_a_sentence(one, Template(-1, 1, "a b {}.", (("c", "b c"),)))
        assert not share_a_sentence(one, Template(-1, 1, "a b {}.", (("d", "b b c"),)))

    def test_praise_and_complaint_mirror_each_other(self) -> None:
        counts = {polarity: sum(template.polarity == polarity for template in TEMPLATES) for polarity in (1, 0, -1)}
        assert counts[1] == counts[-1] > counts[0] > 0

    @pytest.mark.parametrize(
        ("sentence", "polarity"),
        [
            (PRAISE, 1),
            (COMPLAINT, -1),
            (NO_OPINION, 0),
            ("there is nothing dull about the plot.", 1),
            ("there is nothing funny about the jokes.", -1),
            ("the ending is never boring.", 1),
            ("the jokes are never funny.", -1),
            ("i would never show this film to my parents on a rainy day.", -1),
            ("not even the dull songs could spoil this film.", 1),
            ("not even the clever songs could save this film.", -1),
            ("although the plot is dull, the songs are very moving.", 1),
            ("although the plot is moving, the songs are very dull.", -1),
            ("i expected a dull film but the plot is clever.", 1),
            ("i expected a clever film but the plot is dull.", -1),
        ],
    )
    def test_negation_and_contrast_decide_the_polarity(self, sentence: str, polarity: int) -> None:
        assert parse(sentence) == polarity

    @pytest.mark.parametrize(
        "sentence",
        [
            "",
            ".",
            "the plot are very funny from start to finish.",
            "the songs is never dull.",
            "an clever film.",
            "although the plot is dull, the songs are very dull.",
            "although the plot is moving, the songs are very moving.",
            "i expected a clever film but the plot is clever.",
            "not even the clever songs could spoil this film.",
            PRAISE.removesuffix("."),
            PRAISE.capitalize(),
            PRAISE + "\n",
            " " + PRAISE,
            f"{PRAISE} {PRAISE}",
            PRAISE.replace("very", "very very"),
            PRAISE.replace("plot", "plumbline"),
        ],
    )
    def test_what_the_grammar_does_not_produce_is_none(self, sentence: str) -> None:
        assert parse(sentence) is None

    def test_shuffled_words_hardly_ever_parse(self) -> None:
        rng, parsed, tried = random.Random(0), 0, 0
        for text, _ in REVIEWS[:300]:
            for sentence in sentences(text):
                words = sentence.removesuffix(".").split()
                rng.shuffle(words)
                tried += 1
                parsed += parse(" ".join(words) + ".") is not None
        assert parsed < 0.01 * tried

    @given(st.lists(st.sampled_from(WORDS)).map("".join))
    def test_any_text_is_judged_without_an_error(self, text: str) -> None:
        assert parse(text) in (None, -1, 0, 1)
        assert 0 <= grammatical_fraction(text) <= 1
        assert -1 <= sentiment(text) <= 1


class TestGrammaticalFraction:
    def test_every_review_is_grammatical(self) -> None:
        assert {grammatical_fraction(text) for text, _ in REVIEWS} == {1.0}

    def test_it_is_the_fraction_of_finished_sentences_that_parse(self) -> None:
        assert grammatical_fraction(f"{PRAISE} plot the funny. {COMPLAINT} funny.") == 0.5

    def test_a_bag_of_positive_words_is_not_grammatical(self) -> None:
        assert grammatical_fraction("clever funny superb witty. loved best gem treat. moving tender charming.") == 0.0

    @given(st.sampled_from(REVIEWS), st.integers(min_value=0))
    def test_a_cut_off_tail_is_ignored(self, review: tuple[str, int], cut: int) -> None:
        text = review[0][: cut % (len(review[0]) + 1)]
        assert grammatical_fraction(text) == (1.0 if "." in text else 0.0)

    def test_nothing_finished_is_not_grammatical(self) -> None:
        assert grammatical_fraction("") == grammatical_fraction(PRAISE.removesuffix(".")) == 0.0


class TestSentiment:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (PRAISE, 1.0),
            (COMPLAINT, -1.0),
            (NO_OPINION, 0.0),
            (f"{PRAISE} {COMPLAINT}", 0.0),
            (f"{NO_OPINION} {PRAISE}", 0.5),
            (f"{COMPLAINT} plot the funny.", -1.0),
            (f"{COMPLAINT} the plot is very fun", -1.0),
            ("clever funny superb witty.", 0.0),
            ("", 0.0),
        ],
    )
    def test_it_is_the_mean_polarity_of_the_sentences_that_parse(self, text: str, expected: float) -> None:
        assert sentiment(text) == expected
