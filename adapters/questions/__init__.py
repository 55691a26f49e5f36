"""Questions and short answers out of a person's notes, by rules of English grammar.

notes → words → clauses (phrases, times, predicates) → asking (builder, parts, adjuncts) → pairs;
lines without a verb go from notes through keyed and fragments. `memory` says whom "he" means.
"""

from acclimate.adapters.questions.pairs import WORTH, Asked, questions

__all__ = ["WORTH", "Asked", "questions"]
