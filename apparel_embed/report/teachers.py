"""Who taught the student, by what evidence, and how well it agrees with them."""

from __future__ import annotations

from apparel_embed.evaluation.teachers import HEADINGS, choice_rows
from apparel_embed.report.inputs import ReportInputs
from apparel_embed.report.parts import Part, Section, Table
from apparel_embed.store.names import TARGETS


def teachers_section(inputs: ReportInputs) -> Section:
    """Returns the tables of the teachers' evidence and of the student's agreement with them."""
    parts: list[Part] = []
    targets = inputs.stages.get(TARGETS)
    if targets:
        parts.append(
            Table(
                "The joint is all teachers of a vertical in one vector. First is what teaches by "
                "the queries of all verticals together; another candidate does where it is shown "
                "to be better on the vertical's own, with 90 % confidence by bootstrap over items.",
                HEADINGS,
                tuple(choice_rows(targets.result["choices"])),
            )
        )
    student = next((one.stage for one in inputs.trainings if one.model == "unified"), None)
    agreement = student.result.get("agreement") if student else None
    text = ""
    if student and agreement:
        cells = tuple(
            "-" if agreement[name] is None else f"{agreement[name]:.3f}"
            for name in ("train", "augmented", "held_out")
        )
        parts.append(
            Table(
                "Mean cosine between the student's embeddings and its targets.",
                ("images learnt from", "augmented views of them", "split val, not learnt from"),
                (cells,),
            )
        )
        text = f" The student: {student.result['diagnosis']}."
    return Section(
        "teachers",
        "Who taught the student",
        f"What the student learnt to reproduce, and how well it does.{text}",
        tuple(parts),
    )
