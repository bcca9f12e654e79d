"""The log as the processor sees it, and what implements it: Kafka, memory, and a local Kafka for development."""
