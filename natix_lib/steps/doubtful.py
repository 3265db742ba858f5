"""What the page of doubtful labels shows: figures, the pictures of the most doubtful, and a table."""

from collections import Counter

from natix_lib.data.sets import RoleSet
from natix_lib.data.thumbnails import thumbnail
from natix_lib.files import JsonDict
from natix_lib.training.doubts import Doubts

PICTURES, ROWS, IDS = 48, 300, 10_000  # shown: a few hundred kB


def doubtful(images: RoleSet, doubts: Doubts, dropped: bool, tuned: bool) -> JsonDict:
    """The content of label_doubts.html.

    Args:
        images: The images of TRAIN.
        doubts: What is said of their labels.
        dropped: Whether the images of doubtful labels are left out of what weights were fitted on.
        tuned: Whether the backbone was trained after its features had been taken.

    Returns:
        What `reports.doubts.render_doubts` takes.
    """
    names = images.class_names
    rows = [
        {
            "id": images.ids[row],
            "given": names[images.labels[row]],
            "suggested": names[suggested],
            "probability": {"given": given, "suggested": other},
            "group": images.groups[row],
            "src": thumbnail(images.image_bytes(row)) if number < PICTURES else "",
        }
        for number, (row, suggested, (given, other)) in enumerate(
            zip(doubts.rows[:ROWS], doubts.suggested, doubts.probabilities, strict=False)
        )
    ]
    kinds = Counter(zip(images.labels[doubts.rows].tolist(), doubts.suggested, strict=True))
    return {
        "images": doubts.images,
        "judged": doubts.judged,
        "doubtful": len(doubts.rows),
        "reason": doubts.reason,
        "sample": doubts.sample,
        "dropped": dropped,
        "tuned": tuned,
        "kinds": [
            {"given": names[given], "suggested": names[suggested], "images": count}
            for (given, suggested), count in kinds.most_common()
        ],
        "pictures": rows[:PICTURES],
        "rows": rows,
        "ids": [images.ids[row] for row in doubts.rows[:IDS]],
    }
