"""Questions and short answers out of a person's notes, by rules of English grammar.

notes ─▶ words ─▶ clauses (phrases, times, predicates) ─▶ asking (builder, parts, adjuncts) ─▶ pairs
  └─▶ keyed, fragments: lines without a verb ────────────────────────────────────────────────┘
"""

from acclimate.adapters.questions.pairs import WORTH, Asked, questions

__all__ = ["WORTH", "Asked", "questions"]
