"""Problems whose answers can be checked: GSM8K, MATH-500, AIME, any file of problems, and arithmetic of our own."""
