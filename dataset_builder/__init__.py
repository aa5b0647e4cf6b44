"""Build RNA question-answer data: the packaged table of real RNAs, and questions phrased from its facts."""
