"""Questions and short answers out of a person's notes, by rules of English grammar.

notes → words → clauses (phrases, times, predicates) → asking (builder, parts, adjuncts) → pairs;
lines without a verb go from notes through keyed and fragments; what neither can ask is an echo.
`memory` says whom "he" means.
"""

from acclimate.adapters.questions.pairs import ECHOED, ENOUGH, WORTH, Asked, questions

__all__ = ["ECHOED", "ENOUGH", "WORTH", "Asked", "questions"]
