"""What words say of a folder or an ending, where what the files hold does not tell: hints, never more."""

import re
from collections.abc import Iterable

IMAGES = re.compile(
    r"images?|imgs?|im|originals?|orig|raw|photos?|pictures?|jpegimages|pngimages|frames|screenshots|inputs?|data|"
    r"leftimg8bit|rgb|tissue|camerargb|stillsraw|sat|scans?|x"
)
MASKS = re.compile(
    r".*mask.*|.*label.*|.*annot.*|anno|ann|.*segm?.*|gts?|.*groundtruth.*|ground|truth|manual\d?|targets?|trimaps?|"
    r"\d?(st|nd)?manual|lab|y|objects?|defects?"
)
# drawings of a mask, or of something else than where things are
OTHERS = re.compile(
    r"colou?rs?|colou?r(mask|map|coded|label)s?|.*(overlay|overlaid|blend|visuali[sz]ation|preview|thumb).*|vis|viz|rgb|"
    r"instances?|instanceids?|inst|segmentationobject|panoptic|edges?|boundar(y|ies)|contours?|borders?|skeletons?|"
    r"superpixels?|fov|roi|pred(iction)?s?|predicted|outputs?|results?|depths?|disparity|distance|heatmaps?|weights?|"
    r"confidence|uncertainty|tra|track|cent(er|re)s?|weak|scribbles?|bbox(es)?|box(es)?|human"
)
NOT_IMAGES = re.compile(  # other pictures of an image
    r".*(overlay|overlaid|blend|visuali[sz]ation|preview|thumb).*|vis|viz|human|pred(iction)?s?|predicted|outputs?|"
    r"results?|depths?|disparity|heatmaps?|superpixels?|augmented|aug"
)
NO_TRUTH = re.compile(r"pred(iction)?s?|predicted|outputs?|results?|fov")
SERIES = re.compile(
    r"patients?|cases?|subjects?|pat|subj|volumes?|scans?|seq|sequences?|videos?|clips?|slides?|stud(y|ies)|p|s"
)
PEOPLE = re.compile(
    r"(\d+(st|nd|rd|th))?(manual|annotator|annotation|expert|rater|observer|reader|grader|doctor|person|user|ho|human|"
    r"radiologist|pathologist|drawn|by|first|second|third|[a-d]|\d+(st|nd|rd|th)?)+\d*"
)
_ORDER = {"first": "1", "second": "2", "third": "3"}


def count(words: Iterable[str], kind: re.Pattern[str]) -> int:
    """Count the words that are of a kind."""
    return sum(bool(kind.fullmatch(word)) for word in words)


def drawn_by(words: Iterable[str]) -> bool:
    """Say whether all of these words tell people apart, or the order in which they drew."""
    every = list(words)
    return bool(every) and all(PEOPLE.fullmatch(word) for word in every)


def numbered(word: str) -> str:
    """Replace a word's number or order by #: 1stho and 2ndho are both #ho."""
    return re.sub(r"\d+(st|nd|rd|th)?", "#", _ORDER.get(word, word))
