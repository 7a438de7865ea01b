"""ICSD-GAN: stages of a text-to-image GAN taught by the most refined one."""
